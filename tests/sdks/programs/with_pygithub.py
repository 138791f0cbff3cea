import os

from github import Auth, Github

print(Github(auth=Auth.Token(os.environ["GITHUB_TOKEN"])).get_user().login)

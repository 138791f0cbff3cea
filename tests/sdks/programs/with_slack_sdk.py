import os

from slack_sdk import WebClient

print(WebClient(os.environ["SLACK_BOT_TOKEN"]).auth_test()["user"])

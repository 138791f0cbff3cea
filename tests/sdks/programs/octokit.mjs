import { Octokit } from "@octokit/rest";
console.log((await new Octokit({ auth: process.env.GITHUB_TOKEN }).rest.users.getAuthenticated()).data.login);

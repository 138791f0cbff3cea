import Anthropic from "@anthropic-ai/sdk";
const asked = { model: "claude-sonnet-4-5", max_tokens: 9, messages: [{ role: "user", content: "hello" }] };
console.log((await new Anthropic().messages.create(asked)).content[0].text);

import OpenAI from "openai";
const asked = { model: "gpt-5", messages: [{ role: "user", content: "hello" }] };
console.log((await new OpenAI().chat.completions.create(asked)).choices[0].message.content);

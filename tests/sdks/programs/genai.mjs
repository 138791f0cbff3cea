import { GoogleGenAI } from "@google/genai";
const client = new GoogleGenAI({ apiKey: process.env.GEMINI_API_KEY });
console.log((await client.models.generateContent({ model: "gemini-2.5-flash", contents: "hello" })).text);

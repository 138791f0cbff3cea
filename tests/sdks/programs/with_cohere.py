import cohere

asked = [{"role": "user", "content": "hello"}]
print(cohere.ClientV2().chat(model="command-a-03-2025", messages=asked).message.content[0].text)

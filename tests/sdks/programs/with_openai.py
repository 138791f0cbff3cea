from openai import OpenAI

asked = [{"role": "user", "content": "hello"}]
print(OpenAI().chat.completions.create(model="gpt-5", messages=asked).choices[0].message.content)

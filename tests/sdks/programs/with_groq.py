from groq import Groq

asked = [{"role": "user", "content": "hello"}]
print(Groq().chat.completions.create(model="llama-3.3-70b-versatile", messages=asked).choices[0].message.content)

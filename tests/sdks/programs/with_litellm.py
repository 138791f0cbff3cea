import litellm

asked = [{"role": "user", "content": "hello"}]
print(litellm.completion(model="gemini/gemini-2.5-flash", messages=asked).choices[0].message.content)

from anthropic import Anthropic

asked = [{"role": "user", "content": "hello"}]
print(Anthropic().messages.create(model="claude-sonnet-4-5", max_tokens=9, messages=asked).content[0].text)

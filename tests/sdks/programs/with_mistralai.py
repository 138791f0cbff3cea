import os

from mistralai.client import Mistral

asked = [{"role": "user", "content": "hello"}]
client = Mistral(api_key=os.environ["MISTRAL_API_KEY"])
print(client.chat.complete(model="mistral-small-latest", messages=asked).choices[0].message.content)

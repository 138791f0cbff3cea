import boto3

asked = [{"role": "user", "content": [{"text": "hello"}]}]
client = boto3.client("bedrock-runtime", region_name="us-east-1")
answer = client.converse(modelId="amazon.nova-lite-v1:0", messages=asked)
print(answer["output"]["message"]["content"][0]["text"])

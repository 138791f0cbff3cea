from langchain_openai import ChatOpenAI

print(ChatOpenAI(model="gpt-5").invoke("hello").content)

"""LangGraph: what LangChain's agents take works for graphs, which are Runnables, too."""

from __future__ import annotations

from remit.integrations.langchain import DelegatedRunnable, clients

__all__ = ["DelegatedRunnable", "clients"]

"""The SIORG side of the job: which address may be asked, what an answer means, and how hard SIORG may be asked.

``client`` asks, over ``transport`` (the one module with the HTTP library); ``rows``, ``values`` and ``envelope`` read the
answers, purely, into ``model``; ``errors`` says what to do next when that fails.
"""

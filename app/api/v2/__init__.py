"""The Open Inference Protocol (KServe v2) over HTTP, with the sequences of NVIDIA Triton: all paths under /v2.

routes -> inference -> requests, tensors      decode a request: JSON, or JSON with tensors in binary behind it
            |   '----> sequences              find or open the session of a sequence, and step it
            |   '----> sessions.inference     a request without a sequence leaves no session
            '--------> answers, statistics    encode the answer; count requests and their times
routes -> documents                           metadata, configuration, index of models
"""

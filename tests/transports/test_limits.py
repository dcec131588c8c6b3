"""How long things may take: the limits of httpx and httpx2 as ours."""

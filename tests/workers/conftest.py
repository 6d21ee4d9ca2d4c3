from tests.hub_server import hub_server, scripted_hub  # noqa: F401  (fixtures)

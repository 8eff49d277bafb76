"""Options of the long tests."""


def pytest_addoption(parser):
    parser.addoption("--whole", action="store_true", help="do what is otherwise sampled; an hour and more")

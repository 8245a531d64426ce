"""What every test lives with: the rule about skipping, fixtures, and hypothesis without deadlines."""

import hypothesis

pytest_plugins = [
    "skips",
    "lab.tls",
    "lab.answering",
    "lab.builds",
    "lab.commands",
    "lab.relay",
    "lab.setting",
    "kit.talk",
]

# The machine is shared: how long an example takes says nothing.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile("default")

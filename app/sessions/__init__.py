"""The life of sessions: opened, stepped in turn, looked into at any step, rewound, forked, ended."""

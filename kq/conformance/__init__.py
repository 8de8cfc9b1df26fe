"""The suites that prove what kq promises, for kq itself and for stores and transports in other repositories."""

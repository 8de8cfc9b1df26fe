"""What passes between the parts of kq: frozen values, and pure functions of them."""

"""Links without processes of their own: the opener's process serves them, beside everything else that it does."""

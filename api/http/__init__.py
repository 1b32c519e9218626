"""The HTTP API: routes by what they are about, and what all of them share."""

"""From a due delivery to a customer's answer: claimed, signed, posted, judged, settled."""

"""Lead lists: what to buy, and one row a lead again."""

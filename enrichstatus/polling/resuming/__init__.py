"""What a poll leaves behind, and how another goes on with it: tokens for another machine, a store's memory."""

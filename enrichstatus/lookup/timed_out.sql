-- rule 4: a record that is pending, and older than the maximum processing time (strictly), has timed out
        record.status = 'pending' and record.createdAt < asker.pendingSince

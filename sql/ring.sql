-- The doorbell. A commit that carries a NOTIFY serialises with every other such commit, so it is rung only for a
-- daemon that sleeps: that one holds the lock exclusively. If it can be had shared, the daemon is awake, will
-- look again, and cannot fall asleep before this transaction has ended. A transaction that has notified
-- cannot be prepared; a full queue would fail the commit.
IF FOUND AND current_setting('max_prepared_transactions') = '0' THEN
    IF NOT pg_try_advisory_xact_lock_shared({{class}}, {{armed}}) THEN
        IF pg_notification_queue_usage() <= 0.5 THEN
            PERFORM pg_notify('hubsyncd', '');
        END IF;
    END IF;
END IF;

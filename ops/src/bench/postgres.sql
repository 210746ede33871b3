-- A ledger as one would write it on PostgreSQL: accounts with balances, transfers under ids that are used once, the history
-- of each account through an index. Bodies of functions, so that a request is one round trip and one transaction.

create table accounts (
    id              bigint primary key,
    debits_posted   bigint not null default 0,
    credits_posted  bigint not null default 0,
    debits_pending  bigint not null default 0,
    credits_pending bigint not null default 0
) with (fillfactor = 50);

create table transfers (
    id         bigint primary key,
    debit_id   bigint not null,
    credit_id  bigint not null,
    amount     bigint not null,
    pending_id bigint,
    -- 0 done, 1 held, 2 held and since posted
    state      smallint not null default 0,
    created_at timestamptz not null default clock_timestamp()
);
create index transfers_by_debit on transfers (debit_id, id);
create index transfers_by_credit on transfers (credit_id, id);

-- Accounts are locked in the order of their ids: two payments between the same accounts never wait for each other.
create function pay(transfer bigint, debit bigint, credit bigint, amount bigint) returns boolean language plpgsql as $$
begin
    insert into transfers (id, debit_id, credit_id, amount) values (transfer, debit, credit, amount)
        on conflict (id) do nothing;
    if not found then
        return false;
    end if;
    if debit < credit then
        update accounts a set debits_posted = a.debits_posted + pay.amount where a.id = debit;
        update accounts a set credits_posted = a.credits_posted + pay.amount where a.id = credit;
    else
        update accounts a set credits_posted = a.credits_posted + pay.amount where a.id = credit;
        update accounts a set debits_posted = a.debits_posted + pay.amount where a.id = debit;
    end if;
    return true;
end $$;

-- `hold`: the amounts are kept pending until post_many posts them.
create function pay_many(ids bigint[], debits bigint[], credits bigint[], amounts bigint[], hold boolean) returns bigint
language plpgsql as $$
declare
    created bigint;
begin
    perform 1 from accounts where id = any (debits || credits) order by id for update;
    with fresh as (
        insert into transfers (id, debit_id, credit_id, amount, state)
            select *, hold::int from unnest(ids, debits, credits, amounts)
            on conflict (id) do nothing
            returning debit_id, credit_id, amount
    ), change as (
        select id, sum(debit)::bigint as debit, sum(credit)::bigint as credit from (
            select debit_id as id, amount as debit, 0 as credit from fresh
            union all
            select credit_id, 0, amount from fresh
        ) sides group by id
    ), changed as (
        update accounts a set
            debits_posted = a.debits_posted + case when hold then 0 else c.debit end,
            credits_posted = a.credits_posted + case when hold then 0 else c.credit end,
            debits_pending = a.debits_pending + case when hold then c.debit else 0 end,
            credits_pending = a.credits_pending + case when hold then c.credit else 0 end
            from change c where a.id = c.id
    )
    select count(*) into created from fresh;
    return created;
end $$;

create function post_many(new_ids bigint[], holds bigint[]) returns bigint language plpgsql as $$
declare
    created bigint;
begin
    perform 1 from accounts where id in (
        select debit_id from transfers where id = any (holds) union select credit_id from transfers where id = any (holds)
    ) order by id for update;
    with resolved as (
        update transfers t set state = 2 from unnest(new_ids, holds) as asked (id, hold)
            where t.id = asked.hold and t.state = 1
            returning asked.id, t.id as hold, t.debit_id, t.credit_id, t.amount
    ), fresh as (
        insert into transfers (id, debit_id, credit_id, amount, pending_id)
            select id, debit_id, credit_id, amount, hold from resolved
    ), change as (
        select id, sum(debit)::bigint as debit, sum(credit)::bigint as credit from (
            select debit_id as id, amount as debit, 0 as credit from resolved
            union all
            select credit_id, 0, amount from resolved
        ) sides group by id
    ), changed as (
        update accounts a set
            debits_pending = a.debits_pending - c.debit, debits_posted = a.debits_posted + c.debit,
            credits_pending = a.credits_pending - c.credit, credits_posted = a.credits_posted + c.credit
            from change c where a.id = c.id
    )
    select count(*) into created from resolved;
    return created;
end $$;

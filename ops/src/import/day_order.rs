//! Finds an order of an account's rows, day by day, in which as many recorded balances as possible follow.
//!
//! A bank's file names the day of a row and the balance after it, but within a day the rows lie in no particular
//! order. A row *follows* when the balance before it (that of the row before, or of the day before) and its own
//! movement make its recorded balance. Two rows of one day can depend on each other, and the row that ends a day decides
//! whether the next day can begin well; so the search runs over all days of an account at once:
//!
//! ```text
//!     day 1                      day 2
//!     every order of its rows,   every order of its rows, entered from every row that
//!     kept per last row    ──►   may have been the last of day 1                         ──► the best last row, and back
//! ```
//!
//! Within a day it is the search of Held and Karp: the best for each (set of rows placed, last of them). That costs
//! 2^n * n^2 steps for n rows, so it has a bound; a longer day is taken first fit and the answer says so.
//!
//! Laws
//! * Every row is placed exactly once, and no row leaves its day.
//! * No order of the days' rows lets more rows follow, as long as no day is longer than `DAY_ROWS_MAX`.
//! * Where several orders are equally good, the one nearest to the file's is taken: the same file, the same answer.
//!
//! Not here: what a row means (`berka.rs`).

/// 4,096 sets of 12 rows: half a million steps for the longest day. Real days have fewer than ten rows.
pub const DAY_ROWS_MAX: usize = 12;

/// One row of an account: what it moved, and the balance that was recorded after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Credits positive, debits negative, in the smallest unit.
    pub change: i128,
    pub balance: i128,
}

impl Movement {
    fn follows(&self, before: i128) -> bool {
        before.checked_add(self.change) == Some(self.balance)
    }
}

/// One row in the order that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its index among the account's rows, in the order in which they were given.
    pub row: usize,
    /// The recorded balance of the row before it in this order.
    pub before: i128,
    pub follows: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ordered {
    pub placed: Vec<Placed>,
    /// Days longer than `DAY_ROWS_MAX`, which were not searched.
    pub days_too_long: usize,
}

/// Finds the order in which most rows follow. `rows` are one account's, with days in ascending order; `opening` is
/// the balance before the first of them.
pub fn best(opening: i128, rows: &[(u32, Movement)]) -> Ordered {
    let days: Vec<&[(u32, Movement)]> = rows.chunk_by(|a, b| a.0 == b.0).collect();
    let mut endings: Vec<Vec<Ending>> = Vec::with_capacity(days.len());
    let mut entries = vec![Entry { balance: opening, follows_count: 0 }];
    for day in &days {
        let ends =
            if day.len() > DAY_ROWS_MAX { vec![first_fit_day(&entries, day)] } else { search_day(&entries, day) };
        entries =
            ends.iter().map(|end| Entry { balance: end.balance(day), follows_count: end.follows_count }).collect();
        endings.push(ends);
    }
    Ordered {
        placed: place(opening, rows, &trace_back(&days, &endings)),
        days_too_long: days.iter().filter(|day| day.len() > DAY_ROWS_MAX).count(),
    }
}

/// The order of a reader who takes, again and again, the first remaining row of the day that follows, and where there is
/// none the first remaining row. It can strand rows that follow in another order, so it names more; reported beside `best`
/// because it is the count that others arrive at.
pub fn first_fit(opening: i128, rows: &[(u32, Movement)]) -> Ordered {
    let mut order = Vec::with_capacity(rows.len());
    let mut balance = opening;
    for day in rows.chunk_by(|a, b| a.0 == b.0) {
        let from = order.len();
        order.extend(first_fit_order(balance, day).into_iter().map(|row| from + row));
        balance = order.last().map_or(balance, |&row| rows[row].1.balance);
    }
    Ordered { placed: place(opening, rows, &order), days_too_long: 0 }
}

/// A way into a day: the balance that the day before may have ended with, and the best that leads there.
#[derive(Clone, Copy)]
struct Entry {
    balance: i128,
    follows_count: usize,
}

/// A way out of a day: an order of its rows, from which entry it began, and how many rows follow up to here.
struct Ending {
    order: Vec<usize>,
    entry: usize,
    follows_count: usize,
}

impl Ending {
    fn balance(&self, day: &[(u32, Movement)]) -> i128 {
        let last = *self.order.last().expect("a day has at least one row");
        day[last].1.balance
    }
}

/// The best order of a day for each row that can end it: its last row is the ending's index.
fn search_day(entries: &[Entry], day: &[(u32, Movement)]) -> Vec<Ending> {
    let n = day.len();
    // best[set][last]: the most rows that follow, with `set` placed and `last` the last of them; and the row before it,
    // or the entry where the set is `last` alone.
    let mut best: Vec<Option<(usize, usize)>> = vec![None; (1 << n) * n];
    for set in 1usize..1 << n {
        for last in (0..n).filter(|last| set & 1 << last != 0) {
            let rest = set & !(1 << last);
            best[set * n + last] = if rest == 0 {
                // The last of equally good ones: nearest to the file's own order.
                let ways = entries.iter().enumerate();
                ways.map(|(entry, e)| (e.follows_count + usize::from(day[last].1.follows(e.balance)), entry)).max()
            } else {
                let ways = (0..n).filter(|before| rest & 1 << before != 0);
                ways.map(|before| {
                    let (count, _) = best[rest * n + before].expect("smaller sets come first");
                    (count + usize::from(day[last].1.follows(day[before].1.balance)), before)
                })
                .max()
            };
        }
    }
    (0..n).map(|last| read_back(&best, n, last)).collect()
}

fn read_back(best: &[Option<(usize, usize)>], n: usize, last: usize) -> Ending {
    let mut set = (1usize << n) - 1;
    let mut row = last;
    let mut order = Vec::with_capacity(n);
    let (follows_count, _) = best[set * n + row].expect("every row can end the day");
    loop {
        order.push(row);
        let (_, before) = best[set * n + row].expect("each step was reached");
        set &= !(1 << row);
        if set == 0 {
            order.reverse();
            return Ending { order, entry: before, follows_count };
        }
        row = before;
    }
}

fn first_fit_day(entries: &[Entry], day: &[(u32, Movement)]) -> Ending {
    let (entry, from) = entries
        .iter()
        .enumerate()
        .max_by_key(|(_, entry)| entry.follows_count)
        .expect("a day is entered from somewhere");
    let order = first_fit_order(from.balance, day);
    let mut before = from.balance;
    let mut follows_count = from.follows_count;
    for &row in &order {
        follows_count += usize::from(day[row].1.follows(before));
        before = day[row].1.balance;
    }
    Ending { order, entry, follows_count }
}

fn first_fit_order(mut before: i128, day: &[(u32, Movement)]) -> Vec<usize> {
    let mut rest: Vec<usize> = (0..day.len()).collect();
    let mut order = Vec::with_capacity(day.len());
    while !rest.is_empty() {
        let next = rest.iter().position(|&row| day[row].1.follows(before)).unwrap_or(0);
        let row = rest.remove(next);
        before = day[row].1.balance;
        order.push(row);
    }
    order
}

/// From the best ending of the last day back to the first: the rows' indices in order, over all days.
fn trace_back(days: &[&[(u32, Movement)]], endings: &[Vec<Ending>]) -> Vec<usize> {
    let mut chosen: Vec<&Ending> = Vec::with_capacity(days.len());
    let mut next = endings
        .last()
        .and_then(|ends| ends.iter().enumerate().max_by_key(|(_, end)| end.follows_count))
        .map(|(index, _)| index);
    for ends in endings.iter().rev() {
        let end = &ends[next.expect("there is a last day")];
        next = Some(end.entry);
        chosen.push(end);
    }
    let mut order = Vec::new();
    for end in chosen.iter().rev() {
        let from = order.len();
        order.extend(end.order.iter().map(|row| from + row));
    }
    order
}

fn place(opening: i128, rows: &[(u32, Movement)], order: &[usize]) -> Vec<Placed> {
    let mut before = opening;
    order
        .iter()
        .map(|&row| {
            let movement = rows[row].1;
            let placed = Placed { row, before, follows: movement.follows(before) };
            before = movement.balance;
            placed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(day: u32, change: i128, balance: i128) -> (u32, Movement) {
        (day, Movement { change, balance })
    }

    fn not_following(ordered: &Ordered) -> Vec<usize> {
        let mut rows: Vec<usize> = ordered.placed.iter().filter(|p| !p.follows).map(|p| p.row).collect();
        rows.sort_unstable();
        rows
    }

    fn order(ordered: &Ordered) -> Vec<usize> {
        ordered.placed.iter().map(|p| p.row).collect()
    }

    #[test]
    fn a_day_in_the_wrong_order_is_put_right() {
        let ordered = best(0, &[row(1, -30, 70), row(1, 100, 100)]);
        assert_eq!(order(&ordered), [1, 0]);
        assert!(not_following(&ordered).is_empty());
    }

    #[test]
    fn a_row_that_follows_in_no_order_is_named_and_the_others_go_on_from_it() {
        // Interest of 5 was recorded as 6.
        let ordered = best(100, &[row(1, 5, 106), row(1, -6, 100), row(2, 10, 110)]);
        assert_eq!(not_following(&ordered), [0]);
    }

    #[test]
    fn the_end_of_a_day_is_chosen_for_the_sake_of_the_next() {
        // Out and back: 100 -> 50 -> 100 and 50 -> 100 -> 50 both hold together only up to where the day begins.
        let rows = [row(1, 50, 100), row(1, -50, 50), row(2, 1, 51)];
        let ordered = best(7, &rows);
        assert_eq!(order(&ordered), [0, 1, 2], "ending the day at 50 lets day 2 follow");
        assert_eq!(not_following(&ordered), [0]);
    }

    #[test]
    fn taking_the_first_that_fits_can_name_rows_that_do_follow_in_another_order() {
        // From 100 both rows 0 and 1 fit; beginning with row 0 strands row 2.
        let rows = [row(1, -10, 90), row(1, 20, 120), row(1, -20, 100)];
        assert_eq!(not_following(&first_fit(100, &rows)), [1]);
        assert!(not_following(&best(100, &rows)).is_empty());
    }

    #[test]
    fn equally_good_orders_keep_to_the_file() {
        let rows = [row(1, 1, 500), row(1, 1, 600), row(1, 1, 700)];
        assert_eq!(order(&best(0, &rows)), [0, 1, 2]);
    }

    #[test]
    fn a_day_beyond_the_bound_is_taken_first_fit_and_said() {
        let rows: Vec<_> = (0..20).map(|i| row(1, 1, 20 - i)).collect();
        let ordered = best(0, &rows);
        assert_eq!(ordered.days_too_long, 1);
        assert!(not_following(&ordered).is_empty());
    }

    #[test]
    fn no_rows_have_no_order() {
        assert_eq!(best(0, &[]), Ordered::default());
    }

    /// Against every permutation of every day, over many small made-up accounts.
    #[test]
    fn no_permutation_lets_more_rows_follow() {
        let mut seed = 42u64;
        let mut next = move |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..500 {
            let mut rows = Vec::new();
            for day in 0..3 {
                for _ in 0..1 + next(4) {
                    rows.push(row(day, i128::from(next(5)) - 2, i128::from(next(4))));
                }
            }
            let found = best(0, &rows).placed.iter().filter(|p| p.follows).count();
            assert_eq!(found, most_by_trying_all(0, &rows), "{rows:?}");
        }
    }

    fn most_by_trying_all(before: i128, rows: &[(u32, Movement)]) -> usize {
        let Some(&(day, _)) = rows.first() else { return 0 };
        (0..rows.len())
            .filter(|&i| rows[i].0 == day)
            .map(|i| {
                let mut rest = rows.to_vec();
                let (_, movement) = rest.remove(i);
                usize::from(movement.follows(before)) + most_by_trying_all(movement.balance, &rest)
            })
            .max()
            .unwrap_or(0)
    }
}

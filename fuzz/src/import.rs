//! Files that people import.

#[path = "../../ops/src/import/berka.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod berka;
#[path = "../../ops/src/import/csv.rs"]
mod csv;
#[path = "../../ops/src/import/day_order.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod day_order;
#[path = "../../ops/src/import/plan.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod plan;

use plan::Plan;

/// The first byte is the scale, and a zero byte parts the transfers from the accounts.
pub fn import_csv(bytes: &[u8]) {
    let Some((scale, bytes)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (transfers, accounts) = text.split_once('\0').map_or((text, None), |(one, other)| (one, Some(other)));
    let reading = csv::Reading { map: Default::default(), scale: u32::from(scale % 19) };
    check(&csv::plan(transfers, accounts, &reading));
}

pub fn import_berka(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    check(&berka::plan(text));
}

/// What a report makes of it.
fn check(plan: &Plan) {
    let understood = plan.transfers.len();
    assert!(plan.refused.iter().all(|row| !row.reason.is_empty()), "each refused row says why");
    if plan.refused.is_empty() {
        assert!(understood as u64 >= plan.rows_count || plan.rows_count == 0 || !plan.accounts.is_empty(), "no row is lost");
        let _ = plan.control_totals();
        let _ = plan.sums();
        let _ = plan.end_balances_that_differ();
    }
}

//! Diff: what has to be put on top of one state to get another (design D3: the tail of an extension).

use rbuild_solver::{DiffOp, Snapshot};

use crate::operation_error::OperationError;

/// The layers of `upper` that `lower` does not have. Of nothing it is all of `upper`, of equal states nothing.
///
/// # Errors
/// When `upper` was not made on top of `lower`.
pub(crate) fn run(op: &DiffOp, inputs: &[Snapshot]) -> Result<Snapshot, OperationError> {
    let input = |number: Option<u32>| match number {
        None => Ok(Snapshot::default()),
        Some(number) => {
            inputs.get(number as usize).cloned().ok_or(OperationError::NoSuchInput(number))
        }
    };
    let (lower, upper) = (input(op.lower)?, input(op.upper)?);
    match upper.layers().strip_prefix(lower.layers()) {
        Some(tail) => Ok(Snapshot::new(tail.to_vec())),
        None => Err(OperationError::UnrelatedDiff),
    }
}

#[cfg(test)]
mod tests {
    use rbuild_solver::LayerId;

    use super::*;

    fn snapshot(layers: &[u8]) -> Snapshot {
        Snapshot::new(layers.iter().map(|byte| LayerId::new([*byte; 32])).collect())
    }

    fn diff(lower: Option<&[u8]>, upper: Option<&[u8]>) -> Result<Snapshot, OperationError> {
        let inputs = [snapshot(lower.unwrap_or_default()), snapshot(upper.unwrap_or_default())];
        let op = DiffOp { lower: lower.map(|_| 0), upper: upper.map(|_| 1) };
        run(&op, &inputs)
    }

    #[test]
    fn takes_the_tail_of_an_extension() {
        assert_eq!(diff(None, Some(&[1, 2])).unwrap(), snapshot(&[1, 2]));
        assert_eq!(diff(Some(&[1]), Some(&[1, 2, 3])).unwrap(), snapshot(&[2, 3]));
        assert_eq!(diff(Some(&[1, 2]), Some(&[1, 2])).unwrap(), snapshot(&[]));
        assert_eq!(diff(None, None).unwrap(), snapshot(&[]));
    }

    #[test]
    fn refuses_states_that_have_nothing_to_do_with_each_other() {
        for (lower, upper) in [(&[1][..], &[2][..]), (&[1, 2], &[1]), (&[2], &[1, 2])] {
            assert!(matches!(diff(Some(lower), Some(upper)), Err(OperationError::UnrelatedDiff)));
        }
        assert!(matches!(diff(Some(&[1]), None), Err(OperationError::UnrelatedDiff)));
    }
}

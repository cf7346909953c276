//! Merge: states on top of one another (design D3: a concatenation).

use rbuild_solver::{LayerId, MergeOp, Snapshot};

use crate::operation_error::OperationError;

/// Puts the inputs on top of one another, the first at the bottom.
///
/// A layer that comes up several times counts where it is topmost: whatever it has is seen there, and what it
/// deletes is deleted there again. (overlayfs does not take a directory twice.)
pub(crate) fn run(op: &MergeOp, inputs: &[Snapshot]) -> Result<Snapshot, OperationError> {
    let mut layers: Vec<LayerId> = Vec::new();
    for input in op.inputs.iter().flatten() {
        let input = inputs.get(*input as usize).ok_or(OperationError::NoSuchInput(*input))?;
        layers.retain(|layer| !input.layers().contains(layer));
        layers.extend(input.layers());
    }
    Ok(Snapshot::new(layers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(layers: &[u8]) -> Snapshot {
        Snapshot::new(layers.iter().map(|byte| LayerId::new([*byte; 32])).collect())
    }

    fn check(inputs: &[&[u8]], expected: &[u8]) {
        let op = MergeOp { inputs: (0..inputs.len() as u32).map(Some).chain([None]).collect() };
        let inputs: Vec<Snapshot> = inputs.iter().map(|layers| snapshot(layers)).collect();
        assert_eq!(run(&op, &inputs).unwrap(), snapshot(expected));
    }

    #[test]
    fn concatenates() {
        check(&[], &[]);
        check(&[&[1, 2], &[3]], &[1, 2, 3]);
        check(&[&[1, 2], &[1, 3]], &[2, 1, 3]);
        check(&[&[1], &[], &[2], &[1]], &[2, 1]);
    }

    #[test]
    fn inputs_have_to_be_there() {
        let op = MergeOp { inputs: vec![Some(0)] };
        assert!(matches!(run(&op, &[]), Err(OperationError::NoSuchInput(0))));
    }
}

//! Attempts that only look like those of a cause.

use super::{examples::look_alikes, recognised};
use crate::diagnosis::Code;

#[test]
fn look_alikes_are_told_apart() {
    let look_alikes = look_alikes();
    for code in Code::ALL {
        let of_it = look_alikes.iter().filter(|(of, ..)| *of == code);
        assert!(of_it.count() >= 2, "{code:?}");
    }
    for (code, what, case, script) in look_alikes {
        let found = recognised(code, &case, &script);
        assert_eq!(found, None, "{code:?}: {what}");
    }
}

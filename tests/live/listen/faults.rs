//! Listeners while everything around them dies: whoever takes the snapshot and applies what comes has the state.

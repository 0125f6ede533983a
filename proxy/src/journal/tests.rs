//! Tests of the whole journal: a model on the simulated disk, damage, the real disk, the document.

mod damage;
mod document;
mod model;
mod real;

//! What is made small: cross-entropies of what the student says of a crop with what the teacher says of another (images) or of the
//! neighbourhood of the same patch (patches), and the centres that keep the teacher from saying one thing of all.

use tch::{Kind, Tensor, nn};

/// Moving average of what a teacher says.
#[derive(Debug)]
pub struct Centre {
    /// `[K]`.
    value: Tensor,
    momentum: f64,
}

/// Crops of one size: what teacher and student say of their patches, `[C * B, N, K]` each.
#[derive(Debug)]
pub struct PatchTerm {
    /// Probabilities.
    pub teacher: Tensor,
    /// Logarithms of probabilities.
    pub student: Tensor,
    /// C.
    pub n_crops: i64,
}

impl Centre {
    /// At zero, for so many prototypes; `momentum` is the share of the old value that a batch leaves.
    #[must_use]
    pub fn new(root: &nn::Path<'_>, name: &str, prototypes: i64, momentum: f64) -> Self {
        Self { value: root.zeros_no_train(name, &[prototypes]), momentum }
    }

    /// `softmax((z - c) / tau)`.
    ///
    /// # Shapes
    /// - `logits`, output: `[.., K]` f32
    pub fn probabilities(&self, logits: &Tensor, temperature: f64) -> Tensor {
        ((logits - &self.value) / temperature).softmax(-1, Kind::Float)
    }

    /// Takes the mean over all rows of `logits`, `[.., K]` each, in.
    pub fn update(&mut self, logits: &[&Tensor]) {
        let rows: Vec<Tensor> = logits.iter().map(|logits| logits.reshape([-1, self.value.size()[0]])).collect();
        #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
        let n_rows = rows.iter().map(|rows| rows.size()[0]).sum::<i64>() as f64;
        let sums: Vec<Tensor> = rows.iter().map(|rows| rows.sum_dim_intlist([0i64].as_slice(), false, Kind::Float)).collect();
        let mean = Tensor::stack(&sums, 0).sum_dim_intlist([0i64].as_slice(), false, Kind::Float) / n_rows;
        tch::no_grad(|| drop(self.value.g_mul_scalar_(self.momentum).g_add_(&(mean * (1.0 - self.momentum)))));
    }

    /// The centre, `[K]`.
    pub fn value(&self) -> &Tensor {
        &self.value
    }
}

/// `log softmax(z / tau)` of a student.
pub fn log_probabilities(logits: &Tensor, temperature: f64) -> Tensor {
    (logits / temperature).log_softmax(-1, Kind::Float)
}

/// Mean over pairs of a crop of the teacher and another crop of the student, and over the batch, of the cross-entropy.
///
/// # Shapes
/// - `teacher`: `[G, B, K]` f32, probabilities of the global crops
/// - `student`: `[V, B, K]` f32, logarithms of probabilities of all crops, the global ones first
pub fn image_loss(teacher: &Tensor, student: &Tensor) -> Tensor {
    let (n_global, n_crops) = (teacher.size()[0], student.size()[0]);
    // All pairs, less those of a crop with itself.
    let all = student.sum_dim_intlist([0i64].as_slice(), true, Kind::Float);
    let others = all - student.narrow(0, 0, n_global);
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let n_pairs = (n_global * (n_crops - 1)).max(1) as f64;
    let entropies = (teacher * others).sum_dim_intlist([2i64].as_slice(), false, Kind::Float);
    -entropies.mean_dim([1i64].as_slice(), false, Kind::Float).sum(Kind::Float) / n_pairs
}

/// Mean over crops of the mean over their patches of the cross-entropy of teacher and student on the same patch.
pub fn patch_loss(terms: &[PatchTerm]) -> Tensor {
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let n_crops = |terms: &[PatchTerm]| terms.iter().map(|term| term.n_crops).sum::<i64>() as f64;
    let of = |term: &PatchTerm| {
        let entropies = -(&term.teacher * &term.student).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        entropies.mean(Kind::Float) * n_crops(std::slice::from_ref(term))
    };
    let sums: Vec<Tensor> = terms.iter().map(of).collect();
    Tensor::stack(&sums, 0).sum(Kind::Float) / n_crops(terms)
}

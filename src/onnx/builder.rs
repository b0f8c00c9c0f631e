//! Puts a graph together, node by node.

use std::collections::HashSet;

use crate::onnx::{
    IR_VERSION, OPSET, OnnxError,
    proto::{
        AttributeProto, AttributeType, DataType, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto,
        OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
    },
};

/// Domain of ONNX Runtime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";

/// A value of the graph, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value(pub(super) String);

impl Value {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// An extent in the signature of a graph.
#[derive(Clone, Copy, Debug)]
pub enum Dim<'a> {
    /// Always this.
    Fixed(usize),
    /// Any, the same wherever the name stands.
    Any(&'a str),
}

/// A graph that grows. Operators are methods (see `ops`); each returns the value that it makes.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: GraphProto,
    n_values: usize,
    uses_microsoft: bool,
}

impl GraphBuilder {
    /// An empty graph.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let graph = GraphProto { name: name.to_owned(), ..GraphProto::default() };
        Self { graph, n_values: 0, uses_microsoft: false }
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, element_type: DataType, shape: &[Dim<'_>]) -> Value {
        self.graph.input.push(value_info(name, element_type, shape));
        Value(name.to_owned())
    }

    /// Makes `value` an output called `name`.
    pub fn output(&mut self, value: &Value, name: &str, element_type: DataType, shape: &[Dim<'_>]) {
        self.push("Identity", "", &[value], Vec::new(), Some(name.to_owned()));
        self.graph.output.push(value_info(name, element_type, shape));
    }

    /// Adds a constant.
    pub fn constant(&mut self, mut tensor: TensorProto, hint: &str) -> Value {
        tensor.name = self.fresh(hint);
        let value = Value(tensor.name.clone());
        self.graph.initializer.push(tensor);
        value
    }

    /// Adds a constant list of integers: axes, shapes, starts and ends.
    pub fn ints(&mut self, values: &[i64]) -> Value {
        self.constant(TensorProto::i64(&[values.len()], values), "ints")
    }

    /// The model, checked: every value that is read is made once, before it is read.
    ///
    /// # Errors
    /// [`OnnxError::Dangling`] and [`OnnxError::Duplicate`].
    pub fn finish(self) -> Result<ModelProto, OnnxError> {
        check(&self.graph)?;
        let mut opset_import = vec![OperatorSetIdProto { domain: String::new(), version: i64::from(OPSET) }];
        if self.uses_microsoft {
            opset_import.push(OperatorSetIdProto { domain: MICROSOFT.to_owned(), version: 1 });
        }
        Ok(ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            opset_import,
            metadata_props: Vec::new(),
        })
    }

    /// Adds a node of the default domain with one output.
    pub(super) fn node(&mut self, op_type: &str, inputs: &[&Value], attributes: Vec<AttributeProto>) -> Value {
        self.push(op_type, "", inputs, attributes, None)
    }

    /// Adds a node of ONNX Runtime's own domain with one output.
    pub(super) fn microsoft_node(&mut self, op_type: &str, inputs: &[&Value], attributes: Vec<AttributeProto>) -> Value {
        self.uses_microsoft = true;
        self.push(op_type, MICROSOFT, inputs, attributes, None)
    }

    fn push(
        &mut self,
        op_type: &str,
        domain: &str,
        inputs: &[&Value],
        attribute: Vec<AttributeProto>,
        output: Option<String>,
    ) -> Value {
        let output = output.unwrap_or_else(|| self.fresh(op_type));
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|value| value.0.clone()).collect(),
            output: vec![output.clone()],
            name: format!("node/{output}"),
            op_type: op_type.to_owned(),
            attribute,
            domain: domain.to_owned(),
        });
        Value(output)
    }

    fn fresh(&mut self, hint: &str) -> String {
        self.n_values += 1;
        format!("{hint}_{}", self.n_values)
    }
}

/// Checks that every value that is read is made once, before it is read.
pub(super) fn check(graph: &GraphProto) -> Result<(), OnnxError> {
    let mut made: HashSet<&str> = HashSet::new();
    let sources =
        graph.input.iter().map(|input| input.name.as_str()).chain(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    for name in sources {
        make(&mut made, name)?;
    }
    for node in &graph.node {
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            read(&made, name, &node.name)?;
        }
        for name in &node.output {
            make(&mut made, name)?;
        }
    }
    graph.output.iter().try_for_each(|output| read(&made, &output.name, "the graph's outputs"))
}

fn make<'a>(made: &mut HashSet<&'a str>, name: &'a str) -> Result<(), OnnxError> {
    if made.insert(name) { Ok(()) } else { Err(OnnxError::Duplicate { name: name.to_owned() }) }
}

fn read(made: &HashSet<&str>, name: &str, reader: &str) -> Result<(), OnnxError> {
    if made.contains(name) {
        return Ok(());
    }
    Err(OnnxError::Dangling { reader: reader.to_owned(), name: name.to_owned() })
}

fn value_info(name: &str, element_type: DataType, shape: &[Dim<'_>]) -> ValueInfoProto {
    let dim = shape.iter().map(|dim| DimensionProto {
        value: Some(match dim {
            Dim::Fixed(extent) => DimensionValue::DimValue(i64::try_from(*extent).unwrap_or(i64::MAX)),
            Dim::Any(name) => DimensionValue::DimParam((*name).to_owned()),
        }),
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor_type = Some(TensorTypeProto { elem_type: element_type as i32, shape });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

/// An integer attribute.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i: value, r#type: AttributeType::Int as i32, ..AttributeProto::default() }
}

/// A list of integers as attribute.
pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        ints: values.to_vec(),
        r#type: AttributeType::Ints as i32,
        ..AttributeProto::default()
    }
}

/// A float attribute.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), f: value, r#type: AttributeType::Float as i32, ..AttributeProto::default() }
}

/// A string attribute.
pub(super) fn string(name: &str, value: &'static str) -> AttributeProto {
    let s = bytes::Bytes::from_static(value.as_bytes());
    AttributeProto { name: name.to_owned(), s, r#type: AttributeType::String as i32, ..AttributeProto::default() }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_value_that_nothing_makes_is_refused_with_its_reader() {
        let mut graph = GraphBuilder::new("g");
        graph.node("Relu", &[&Value("ghost".into())], Vec::new());
        let error = graph.finish().unwrap_err();
        assert_eq!(error.to_string(), "node/Relu_1 reads \"ghost\", which nothing makes");
    }

    #[test]
    fn two_inputs_of_one_name_are_refused() {
        let mut graph = GraphBuilder::new("g");
        graph.input("x", DataType::Float, &[]);
        graph.input("x", DataType::Float, &[]);
        assert!(matches!(graph.finish(), Err(OnnxError::Duplicate { name }) if name == "x"));
    }
}

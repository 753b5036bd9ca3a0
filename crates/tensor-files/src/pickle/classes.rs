use crate::Dtype;

/// The classes and functions that a pickle may name. None of them is called: each is computed here, on plain values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `collections.OrderedDict`: a dict.
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: a view into a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3`: a view of a given type into bytes.
    RebuildTensorV3,
    /// `torch._utils._rebuild_parameter` and `_rebuild_parameter_with_state`: the tensor inside.
    RebuildParameter,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
    /// `torch.storage.UntypedStorage`: bytes.
    UntypedStorage,
    /// `torch.float32` and its like: an element type, as a value.
    Type(Dtype, &'static str),
    /// `torch.Size`: a tuple.
    Size,
    /// `torch.device`: its name.
    Device,
    /// `_codecs.encode`: how protocol 2 writes bytes, as Latin-1 text.
    Encode,
    /// `numpy.dtype`: an element type.
    NumpyType,
    /// `numpy.core.multiarray.scalar`: one number.
    NumpyScalar,
}

impl Class {
    /// The class of a module and a name, if it is allowed.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTensorV3,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::RebuildParameter,
            ("torch.storage" | "torch", "UntypedStorage") => Self::UntypedStorage,
            ("torch" | "torch.cuda", name) if name.ends_with("Storage") => Self::Storage(storage_type(name)?),
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Device,
            ("torch", name) => return element_type(name).map(|(dtype, name)| Self::Type(dtype, name)),
            ("_codecs", "encode") => Self::Encode,
            ("numpy", "dtype") => Self::NumpyType,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::NumpyScalar,
            _ => return None,
        })
    }
}

fn storage_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

fn element_type(name: &str) -> Option<(Dtype, &'static str)> {
    Some(match name {
        "float64" => (Dtype::F64, "torch.float64"),
        "float32" => (Dtype::F32, "torch.float32"),
        "float16" => (Dtype::F16, "torch.float16"),
        "bfloat16" => (Dtype::BF16, "torch.bfloat16"),
        "int64" => (Dtype::I64, "torch.int64"),
        "int32" => (Dtype::I32, "torch.int32"),
        "int16" => (Dtype::I16, "torch.int16"),
        "int8" => (Dtype::I8, "torch.int8"),
        "uint64" => (Dtype::U64, "torch.uint64"),
        "uint32" => (Dtype::U32, "torch.uint32"),
        "uint16" => (Dtype::U16, "torch.uint16"),
        "uint8" => (Dtype::U8, "torch.uint8"),
        "bool" => (Dtype::BOOL, "torch.bool"),
        _ => return None,
    })
}

//! Packs and unpacks little-endian integers of a record whose length is known.
//!
//! Both walk the record from front to back, so that a record's layout is the order of the calls.

/// Takes integers off the front of a record.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

/// Puts integers at the front of what is left of a record.
pub(crate) struct Writer<'a>(pub(crate) &'a mut [u8]);

macro_rules! integer {
    ($name:ident, $type:ty) => {
        impl Reader<'_> {
            #[inline(always)]
            pub(crate) fn $name(&mut self) -> $type {
                let (bytes, rest) = self.0.split_first_chunk().expect("a record ends where its last field ends");
                self.0 = rest;
                <$type>::from_le_bytes(*bytes)
            }
        }
        impl Writer<'_> {
            #[inline(always)]
            pub(crate) fn $name(&mut self, value: $type) {
                let (bytes, rest) = core::mem::take(&mut self.0)
                    .split_first_chunk_mut()
                    .expect("a record ends where its last field ends");
                *bytes = value.to_le_bytes();
                self.0 = rest;
            }
        }
    };
}

integer!(u16, u16);
integer!(u32, u32);
integer!(u64, u64);
integer!(u128, u128);

//! What a process executed, kept once however many processes show the same.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::exec;
use crate::process::ring::{ARGUMENTS, EXE};

/// Executable and arguments. `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Shown {
    /// The target of /proc/PID/exe.
    pub exe: Option<Box<[u8]>>,
    /// /proc/PID/cmdline: arguments, each with its NUL.
    pub arguments: Option<Box<[u8]>>,
    /// The argument list was longer.
    pub cut: bool,
}

impl Shown {
    /// Takes what was read and cuts it at the limits.
    pub fn new(exe: Option<&[u8]>, arguments: Option<&[u8]>, cut: bool) -> Self {
        let kept = arguments.map(|bytes| &bytes[..bytes.len().min(ARGUMENTS)]);
        Shown {
            // A part of a path would be that of another program.
            exe: exe.filter(|path| path.len() <= EXE).map(Into::into),
            cut: cut || kept.map(<[u8]>::len) != arguments.map(<[u8]>::len),
            arguments: kept.map(Into::into),
        }
    }

    /// The same in the form of the stage before.
    pub fn image(&self) -> exec::Image {
        let mut image = exec::Image::default();
        if let Some(exe) = &self.exe {
            image.set_exe(exe);
        }
        if let Some(arguments) = &self.arguments {
            image.set_arguments(arguments, self.cut);
        }
        image
    }

    /// Bytes on the heap, roughly.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + size_of::<[usize; 4]>()
            + self.exe.as_ref().map_or(0, |path| path.len())
            + self.arguments.as_ref().map_or(0, |list| list.len())
    }
}

/// An image and how many places of the table show it.
#[derive(Debug)]
pub struct Image {
    shown: Shown,
    users: AtomicU32,
}

impl std::ops::Deref for Image {
    type Target = Shown;

    fn deref(&self) -> &Shown {
        &self.shown
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Image) -> bool {
        self.shown == other.shown
    }
}

impl Eq for Image {}

impl Hash for Image {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shown.hash(state);
    }
}

impl From<Shown> for Image {
    fn from(shown: Shown) -> Self {
        Image { shown, users: AtomicU32::new(0) }
    }
}

/// The images that are in use, each once. Whoever else holds one, as an alert does, does not count as a user.
#[derive(Debug, Default)]
pub struct Images {
    all: HashSet<Arc<Image>>,
    weight: usize,
}

impl Images {
    /// The shared copy of an image, with one user more.
    pub fn share(&mut self, shown: Shown) -> Arc<Image> {
        let image = Arc::new(Image::from(shown));
        let image = match self.all.get(&image) {
            Some(known) => Arc::clone(known),
            None => {
                self.weight += image.weight();
                self.all.insert(Arc::clone(&image));
                image
            }
        };
        self.hold(&image);
        image
    }

    /// Counts one user more of a shared image.
    pub fn hold(&self, image: &Image) {
        image.users.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one user less; the last one takes the image away.
    pub fn release(&mut self, image: &Arc<Image>) {
        if image.users.fetch_sub(1, Ordering::Relaxed) == 1 && self.all.remove(image) {
            self.weight -= image.weight();
        }
    }

    /// Bytes held, roughly.
    pub fn weight(&self) -> usize {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_kept_once_and_freed_with_its_last_user() {
        let mut images = Images::default();
        let image = || Shown::new(Some(b"/bin/sh"), Some(b"sh\0-c\0x\0"), false);
        let (first, second) = (images.share(image()), images.share(image()));
        assert!(Arc::ptr_eq(&first, &second));
        let weight = images.weight();
        images.release(&first);
        assert_eq!(images.weight(), weight);
        // Both Arcs are still there, as those of alerts may be.
        images.release(&second);
        assert_eq!((images.weight(), images.all.len()), (0, 0));
    }

    #[test]
    fn long_images_are_cut_and_say_so() {
        let image = Shown::new(Some(&[b'x'; 2 * EXE]), Some(&[b'y'; ARGUMENTS + 1]), false);
        assert_eq!(image.exe, None);
        assert_eq!(image.arguments.as_deref().map(<[u8]>::len), Some(ARGUMENTS));
        assert!(image.cut && !Shown::new(None, Some(b"x\0"), false).cut);
    }
}

// infer/base/version.h - the program's version, as artifacts name it.
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

#define PROGRAM_VERSION "0.1.0"

#endif

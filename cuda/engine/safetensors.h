// Weights in safetensors files. Headers are parsed and checked by lib/engine/safetensors.ts; here are their tables.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/weight_source.h"

namespace detinfer {

struct SafetensorsEntry {
  std::string name;
  /// Index into the list of files.
  int file = 0;
  /// As the header writes it: "BF16".
  std::string dtype;
  std::vector<int64_t> shape;
  /// Where the data begins and ends in the file.
  int64_t begin = 0;
  int64_t end = 0;
};

/// Maps the files. @throws Error kInvalidWeights when one can't be read or is shorter than its header says
std::unique_ptr<WeightSource> open_safetensors(const std::vector<std::string>& files,
                                               std::vector<SafetensorsEntry> entries);

}  // namespace detinfer

// config.json as a flat map: nested keys are joined by dots ("rope_parameters.rope_theta"), elements of arrays carry
// their index ("architectures.0"). Every getter names the key in its error.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace detinfer {

class ConfigMap {
 public:
  using Value = std::variant<bool, double, std::string>;

  void set(const std::string& key, Value value) { values_[key] = std::move(value); }

  /// Whether the key, or one below it, is present; null counts as absent.
  bool has(const std::string& key) const;

  /// @throws Error kInvalidModel when the key is missing or of another type.
  int positive_int(const std::string& key) const;
  double positive_number(const std::string& key) const;
  std::string text(const std::string& key) const;

  /// The same with a value for a missing key.
  int positive_int(const std::string& key, int fallback) const;
  double positive_number(const std::string& key, double fallback) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  bool flag(const std::string& key, bool fallback) const;
  /// A list of integers from 0 to count - 1; empty when the key is missing.
  std::vector<int> indices(const std::string& key, int count) const;

 private:
  const Value* find(const std::string& key) const;
  [[noreturn]] void refuse(const std::string& key, const std::string& wanted) const;

  std::map<std::string, Value> values_;
};

}  // namespace detinfer

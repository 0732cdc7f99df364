#include "core/config_map.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace detinfer {
namespace {

std::string shown(const ConfigMap::Value* value) {
  if (!value) return "is missing";
  if (const bool* flag = std::get_if<bool>(value)) return *flag ? "is true" : "is false";
  if (const std::string* text = std::get_if<std::string>(value)) return "is \"" + *text + "\"";
  std::string number = std::to_string(std::get<double>(*value));
  number.erase(number.find_last_not_of('0') + 1);
  if (number.back() == '.') number.pop_back();
  return "is " + number;
}

[[noreturn]] void refuse(const std::string& key, const ConfigMap::Value* value, const char* wanted) {
  throw Error(ErrorCode::kInvalidModel, "config.json: " + key + " " + shown(value) + "; it must be " + wanted);
}

}  // namespace

const ConfigMap::Value* ConfigMap::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

bool ConfigMap::has(const std::string& key) const {
  if (find(key)) return true;
  const auto next = values_.lower_bound(key + ".");
  return next != values_.end() && next->first.compare(0, key.size() + 1, key + ".") == 0;
}

double ConfigMap::positive_number(const std::string& key) const {
  const Value* value = find(key);
  const double* number = value ? std::get_if<double>(value) : nullptr;
  if (!number || !(*number > 0.0) || !std::isfinite(*number)) refuse(key, value, "a positive number");
  return *number;
}

int ConfigMap::positive_int(const std::string& key) const {
  const Value* value = find(key);
  const double* number = value ? std::get_if<double>(value) : nullptr;
  if (!number || *number < 1.0 || *number > std::numeric_limits<int>::max() || *number != std::floor(*number)) {
    refuse(key, value, "a positive integer");
  }
  return int(*number);
}

std::string ConfigMap::text(const std::string& key) const {
  const Value* value = find(key);
  const std::string* text = value ? std::get_if<std::string>(value) : nullptr;
  if (!text) refuse(key, value, "a string");
  return *text;
}

int ConfigMap::positive_int(const std::string& key, int fallback) const {
  return find(key) ? positive_int(key) : fallback;
}

double ConfigMap::positive_number(const std::string& key, double fallback) const {
  return find(key) ? positive_number(key) : fallback;
}

std::string ConfigMap::text(const std::string& key, const std::string& fallback) const {
  return find(key) ? text(key) : fallback;
}

bool ConfigMap::flag(const std::string& key, bool fallback) const {
  const Value* value = find(key);
  if (!value) return fallback;
  const bool* flag = std::get_if<bool>(value);
  if (!flag) refuse(key, value, "true or false");
  return *flag;
}

std::vector<int> ConfigMap::indices(const std::string& key, int count) const {
  if (const Value* value = find(key)) refuse(key, value, "a list");
  std::vector<int> list;
  for (int i = 0; has(key + "." + std::to_string(i)); ++i) {
    const std::string element = key + "." + std::to_string(i);
    const Value* value = find(element);
    const double* number = value ? std::get_if<double>(value) : nullptr;
    if (!number || *number < 0.0 || *number >= count || *number != std::floor(*number)) {
      const std::string wanted = "an integer from 0 to " + std::to_string(count - 1);
      refuse(element, value, wanted.c_str());
    }
    list.push_back(int(*number));
  }
  return list;
}

}  // namespace detinfer

#include "core/config_map.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace detinfer {
namespace {

std::string shown(const ConfigMap::Value* value) {
  if (const bool* flag = std::get_if<bool>(value)) return *flag ? "is true" : "is false";
  if (const std::string* text = std::get_if<std::string>(value)) return "is \"" + *text + "\"";
  std::string number = std::to_string(std::get<double>(*value));
  number.erase(number.find_last_not_of('0') + 1);
  if (number.back() == '.') number.pop_back();
  return "is " + number;
}

}  // namespace

void ConfigMap::refuse(const std::string& key, const std::string& wanted) const {
  const Value* const value = find(key);
  const std::string found = value ? shown(value) : has(key) ? "is a list or an object" : "is missing";
  throw Error(ErrorCode::kInvalidModel, "config.json: " + key + " " + found + "; it must be " + wanted);
}

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
  if (!number || !(*number > 0.0) || !std::isfinite(*number)) refuse(key, "a positive number");
  return *number;
}

int ConfigMap::positive_int(const std::string& key) const {
  const Value* value = find(key);
  const double* number = value ? std::get_if<double>(value) : nullptr;
  if (!number || *number < 1.0 || *number > std::numeric_limits<int>::max() || *number != std::floor(*number)) {
    refuse(key, "a positive integer");
  }
  return int(*number);
}

std::string ConfigMap::text(const std::string& key) const {
  const Value* value = find(key);
  const std::string* text = value ? std::get_if<std::string>(value) : nullptr;
  if (!text) refuse(key, "a string");
  return *text;
}

int ConfigMap::positive_int(const std::string& key, int fallback) const {
  return has(key) ? positive_int(key) : fallback;
}

double ConfigMap::positive_number(const std::string& key, double fallback) const {
  return has(key) ? positive_number(key) : fallback;
}

std::string ConfigMap::text(const std::string& key, const std::string& fallback) const {
  return has(key) ? text(key) : fallback;
}

bool ConfigMap::flag(const std::string& key, bool fallback) const {
  if (!has(key)) return fallback;
  const Value* value = find(key);
  const bool* flag = value ? std::get_if<bool>(value) : nullptr;
  if (!flag) refuse(key, "true or false");
  return *flag;
}

std::vector<int> ConfigMap::indices(const std::string& key, int count) const {
  if (find(key)) refuse(key, "a list");
  std::vector<int> list;
  for (int i = 0; has(key + "." + std::to_string(i)); ++i) {
    const std::string element = key + "." + std::to_string(i);
    const Value* value = find(element);
    const double* number = value ? std::get_if<double>(value) : nullptr;
    if (!number || *number < 0.0 || *number >= count || *number != std::floor(*number)) {
      refuse(element, "an integer from 0 to " + std::to_string(count - 1));
    }
    list.push_back(int(*number));
  }
  return list;
}

}  // namespace detinfer

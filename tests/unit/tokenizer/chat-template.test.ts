import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from '@jest/globals';

import { ChatTemplate } from '../../../lib/tokenizer/chat-template.js';

let folder: string;
beforeEach(async () => (folder = await mkdtemp(join(tmpdir(), 'detinfer-template-'))));
afterEach(() => rm(folder, { recursive: true }));

const write = (name: string, content: string | object) =>
  writeFile(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content));
const input = (content = 'Hi', tools: object[] | null = null) => ({
  messages: [{ role: 'user', content }],
  tools,
  add_generation_prompt: true,
});

test('a template sees messages, special tokens, tools and further variables', async () => {
  const template =
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m.content | trim }}{% endfor %}" +
    '{% if tools %}{{ tools | tojson }}{% endif %}{% if enable_thinking is defined %}!{% endif %}{{ eos_token }}';
  await write('tokenizer_config.json', { bos_token: '<s>', eos_token: { content: '</s>' }, chat_template: template });
  const loaded = (await ChatTemplate.load(folder, null))!;
  expect(loaded.render(input(' Hi '))).toBe('<s>[user] Hi</s>');
  expect(loaded.render({ ...input('Hi', [{ a: 1 }]), enable_thinking: false })).toBe('<s>[user] Hi[{"a": 1}]!</s>');
});

test('chat_template.jinja comes before tokenizer_config.json', async () => {
  await write('tokenizer_config.json', { chat_template: 'old' });
  await write('chat_template.jinja', 'new');
  expect((await ChatTemplate.load(folder, null))!.render(input())).toBe('new');
});

test('of named templates, tools take tool_use', async () => {
  const named = [
    { name: 'default', template: 'plain' },
    { name: 'tool_use', template: 'tools' },
  ];
  await write('tokenizer_config.json', { chat_template: named });
  const loaded = (await ChatTemplate.load(folder, null))!;
  expect([loaded.render(input()), loaded.render(input('Hi', [{}]))]).toEqual(['plain', 'tools']);
});

test('a file given by flag comes before the model’s own', async () => {
  await write('tokenizer_config.json', { bos_token: '<s>', chat_template: 'own' });
  await write('mine.jinja', '{{ bos_token }}mine');
  expect((await ChatTemplate.load(folder, join(folder, 'mine.jinja')))!.render(input())).toBe('<s>mine');
});

test('a model may have none', async () => {
  await write('tokenizer_config.json', {});
  expect(await ChatTemplate.load(folder, null)).toBeNull();
});

test('what can’t be used is refused', async () => {
  await expect(ChatTemplate.load(folder, 'chatml')).rejects.toMatchObject({
    code: 'INVALID_FLAG',
    message: expect.stringMatching(/chatml: there is no such file.*built-in names/),
  });
  await write('broken.jinja', '{% if %}');
  const broken = join(folder, 'broken.jinja');
  await expect(ChatTemplate.load(folder, broken)).rejects.toMatchObject({ code: 'INVALID_FLAG' });
  await write('chat_template.jinja', '{% for %}');
  await expect(ChatTemplate.load(folder, null)).rejects.toMatchObject({ code: 'INVALID_MODEL' });
});

test('messages that the template refuses are an error of the request', async () => {
  await write('chat_template.jinja', "{{ raise_exception('roles must alternate') }}");
  const loaded = (await ChatTemplate.load(folder, null))!;
  expect(() => loaded.render(input())).toThrow(
    expect.objectContaining({ code: 'INVALID_REQUEST', message: expect.stringMatching(/roles must alternate/) }),
  );
});

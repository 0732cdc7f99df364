/** The prompts of the text modes. Their words don't matter; that they never change does. */

export const SHORT_PROMPT = 'Tell me about Richard Feynman: ';

export const SECOND_SHORT_PROMPT =
  "Generate 1000 random numbers. Go directly into it, don't say Sure and don't say here are numbers. " +
  'Just start with a number.';

/** More than 4097 characters of plain English. */
export const LONG_PROMPT = `
Far up in the hills, where the road ends and the path begins, there was a small town with a mill, a school, a market
and a clock tower. The clock had been built by a woman named Agatha, who had come over the mountains with a wagon of
brass and a box of files. She had promised the mayor a clock that would never be wrong. It took her eleven years. When
it was finished she wound it once, set it by the noon sun, shook the hand of the mayor and went home to sleep.

For a long time the clock was right. The baker rose by it, the children ran to school by it, and the old men on the
bench told each other that in the next valley, where the clocks were bought from a catalogue, nobody knew when to eat.
Then one winter a traveller came through the snow. He carried a clock of his own, a little one in a leather case, and
he sat down in the inn, put it on the table and said: "Your tower is four minutes slow."

Nobody believed him. The innkeeper laughed so much that he had to hold on to the door. But the teacher, whose name was
Otto, was a careful man. He asked the traveller to stay for a week, and every noon the two of them stood in the square
with a stick, a string and a sheet of paper, and marked the shadow. On Monday the tower was right. On Tuesday it was
right. On Wednesday, which was market day, it was two minutes slow, and on Thursday it was right again.

"This is worse than a slow clock," said Otto. "A slow clock is wrong in a way that you can learn. This one is right
when we look at it alone, and wrong when the square is full."

So they climbed the tower. There were one hundred and forty-four steps, then a ladder, then a door that had not been
opened for years. Behind it the great wheels turned in the dark. They found no rust, no broken tooth, no bird's nest.
Everything was just as Agatha had left it, down to the thin line of chalk with which she had numbered the wheels. They
sat there all of Friday and saw nothing, and all of Saturday and saw nothing. But on the next market day, when the
wagons rolled into the square, Otto laid his hand on the frame and felt it tremble.

Each wagon shook the ground, the ground shook the tower, and the tower shook the long pendulum, only a little, now one
way and now the other. With one wagon it made no difference that a person could see. With two, the small pushes came
in one order; with three, in another; and each time the sum of them was not quite the same. "She built a clock that is
never wrong," said the traveller, "for a square that is always empty."

They wrote to Agatha, who was very old by then and lived by the sea. Her answer came in the spring. It was short. "You
are right and I am ashamed," she wrote. "I tried the clock by night, because it was quiet, and so I tried it only in
the quiet. Hang the pendulum from a beam of its own that stands on the rock and touches no wall. Then let it count its
swings one after the other, and let nothing else be added. It will not run faster and it will not run slower for that.
And when you have done it, do not test it at night. Fill the square. Bring every wagon that you have, and cows, and a
brass band, and then compare."

They did as she said. They cut a hole in the floor, set a beam of oak upon the rock, and hung the pendulum from it. On
the first of May they filled the square. There were forty wagons, sixty cows, two brass bands who did not like each
other, and all the children, who had been told to jump. The traveller held his little clock, Otto held the string, and
the mayor held his breath. Noon came. The shadow touched the line, the great hand touched the twelve, and the bell
began to ring, all in the same moment.

They tried it again with one wagon, and with none, and with the bands on the other side. They tried it on the second of
May and on the third. It was always the same, and after a week the cows went home. The traveller packed his clock into
its leather case and asked what he owed for the room. "Nothing," said the innkeeper, who was not laughing any more. Then
Otto took a piece of chalk, climbed the one hundred and forty-four steps and the ladder, and wrote on the new beam,
where nobody but the next careful person would ever read it: "Right when it is alone is not yet right. Tested in a full
square." Under it he wrote the year and, because he was honest, the number of the cows.
`.trim();

"""What the synthetic speakers say: original English sentences of 3 to 14 words.

The words carry little emotion of their own, so that emotion has to be heard in the voice. Between them the
sentences hold every English phoneme in many contexts, with extra bilabials, labiodentals and rounded vowels.
"""

_TEXT = """
The door is open.
We should go now.
I saw the letter.
Give me the map.
They are all here.
You moved my books.
It was my mother.
Look at the moon.
Put it over there.
He never told me.
She bought the boat.
Nobody knows his name.
The phone was ringing.
My brother came home.
This is the last one.
I will be there soon.
Nothing happened after that.
The bus left early.
You have to see this.
We found it upstairs.
They want us to wait.
Somebody opened the window.
I left it with you.
The meeting is tomorrow.
He took the whole box.
She is talking to them.
The lights went out again.
I thought you knew.
My keys are missing.
The water is boiling.
He said maybe.
It happened this morning.
You were right about him.
The paper is on the table.
Everyone saw it happen.
We live above the bakery.
The baby is awake.
I have never been here before.
Your father called me.
That belongs to the museum.
They painted the kitchen yellow.
The train was full.
I know what you mean.
He is moving to Boston.
She opened the blue envelope.
The cup fell off the shelf.
We are having soup for dinner.
Tell them about the bridge.
I put the money in the drawer.
The man from the bank is back.
They gave him the part.
My shoes are by the door.
This road goes to the river.
She wrote the whole thing herself.
He works for the other team.
The whole family is coming over.
You can leave your coat here.
I heard music in the hall.
The boys were playing football.
We met her on the ferry.
Someone has been in my room.
The soup needs more pepper.
It is almost five o'clock.
Take the second road on the left.
My uncle bought a purple van.
She wants to show you the picture.
He had a beard the last time.
The people next door are moving out.
I am going to my sister's place.
We could see the sea from there.
The wolf was only a dog.
They found my wallet in the park.
You could hear it through the wall.
A few of us stayed behind.
The judge asked for a new map.
He put both hands on the wheel.
We may have to begin again.
I believe this chair was yours.
The boat moved slowly past the pier.
She told me to ask for you.
Your package is at the front desk.
They served fish and brown bread.
The phone in the lobby is broken.
My neighbour has four parrots.
The movie begins at half past seven.
We have been here since breakfast.
He showed me how the pump works.
I gave the tickets to your cousin.
The old bell rang twice.
She is the one in the photograph.
They live on the far side of the valley.
You left the tap running.
The whole town was there to watch.
My grandmother used to own this shop.
I have a message from the captain.
There is a bird in the chimney.
The doctor will see you in a moment.
He bought the house without seeing it.
We walked home along the beach.
This is not what I ordered.
The wind blew the papers everywhere.
She put the ring on the wrong hand.
I can see the bridge from my room.
The next boat leaves in an hour.
They are building a pool behind the school.
He said he would meet us by the fountain.
You forgot to close the gate.
The box was empty when I opened it.
My mother made bread every Sunday.
I think the map is upside down.
We shared the room with two other people.
The voice on the phone was my own.
She moved the piano to the other room.
Nobody has lived there for fifty years.
The first page of the book is missing.
He walks past my window every morning.
They have changed the name of the street.
I will bring the rest of it tomorrow.
The bottom drawer is full of buttons.
We saw you on the evening news.
The coffee here is better than at home.
You should have heard what he said.
It was raining when the plane landed.
The woman in the blue coat is my boss.
I need to be back before four.
She found a photo of the two of you.
The bill came to forty pounds.
He is the best cook in the family.
They moved the whole office over the weekend.
My bag was on the back seat.
We will know more by the end of the week.
The farmer gave us a basket of plums.
I told him about the job in London.
There were five people in front of me.
The new teacher comes from Peru.
She has the same name as my aunt.
The whole wall was covered with maps.
You two have met before.
He left his umbrella in the taxi.
The children hid behind the bathroom door.
I have been looking for you all day.
Our room is above the main entrance.
The power came back around midnight.
We were about to have lunch.
The last bus had already gone.
She puts lemon in everything.
A man came by and asked for you.
They took the wrong turn near the farm.
My watch has stopped again.
The whole place smells of fresh paint.
I could not find the room number.
He keeps a boat on the river.
The book you wanted is back.
We bought it from a woman in the market.
You can borrow mine if you want.
The pool is closed until further notice.
She wore the green one to the wedding.
It took us two hours to get here.
The moon was low above the barn.
They have the results of the vote.
I saw him leave through the back door.
The bread is still warm.
He put the whole fish in the pan.
My brother plays the violin.
We have to be out by Wednesday.
The policeman wanted to see my passport.
She turned the radio off.
The rope was not long enough.
You have paint on your elbow.
I remember the shape of the garden.
Their house is just beyond the chapel.
The whole thing took five minutes.
He told the same story last year.
We always leave the porch light on.
The museum opens in the afternoon.
I have your number somewhere.
They gave the job to somebody else.
The snow reached the bottom of the window.
She is flying home on Thursday.
My father built this table.
There is a phone call for you.
The shop on the corner sells maps.
He asked me to move the car.
We followed the path down to the beach.
The ship was bigger than I imagined.
You will find the forks in the top drawer.
I bought them both at the same place.
Maybe the other key works.
The movers broke the mirror.
She said the answer was on page nine.
They are putting up a new bridge.
The apple pie is for the neighbours.
My room faces the mountains.
He wants to be paid in cash.
The vote is on Monday morning.
We were the only people on the beach.
I never met his wife.
The package was wrapped in brown paper.
You ate the whole bowl.
The band is going to play outside.
She has moved to a bigger flat.
A bee flew into the bathroom.
They asked him to do it again.
The paint is not dry yet.
I will wait for you by the statue.
He was born in a small village.
The queen came to open the library.
We found a puppy in the garage.
Your voice sounds the same on the radio.
The lake is frozen from shore to shore.
My mom put your name on the list.
Someone paid for our dinner.
She gave me back the ring.
The boy on the left is my nephew.
I have worked here for seven months.
They put the blame on the weather.
The map shows a path through the woods.
He is the only one who knows the way.
We can see your house from the tower.
The fever was gone by the morning.
You promised to be home by five.
The wood is too wet to burn.
Both of my parents were there.
She left the room before the end.
I am meeting the lawyer at noon.
The bowl is older than the house.
They opened a cafe above the garage.
The pipe under the sink is leaking.
He has the voice of a much older man.
We were supposed to bring our own food.
My bike was right in front of the shop.
It is the fourth time this week.
The boss wants to see both of us.
You could have asked me first.
The garden has never looked like this.
I put your book back on the shelf.
She knew every word of the poem.
The ferry was late because of the fog.
They want to buy the farm.
A few people were still in the pub.
He pushed the table against the wall.
The window in the bedroom is broken.
We have a visitor from Japan.
My phone was in the other jacket.
The whole valley is under water.
I found this in the back of the van.
You have never seen so many butterflies.
The choir will be performing at eight.
She made up her mind on the way home.
There was a fire in the village hall.
The path behind the church is closed.
He put a whole spoon of salt in it.
We had the place to ourselves.
The boxes in the basement are hers.
I would like to change my order.
They never go out before dark.
The mayor wants to move the statue.
My boots are full of water.
The film is based on his life.
You can put the flowers over here.
She works with my older brother.
The rabbit jumped over the fence.
Our boat was the first one back.
He said the house had been sold.
We should be able to hear them by now.
The bell above the door rang.
I think somebody has been following us.
The farm is five miles from the sea.
They have two girls and a boy.
The picture above the bed has moved.
My passport is in the blue folder.
You are the only one who saw it.
He took the early train to Vienna.
The bottle was under the bench.
We gave the puppy to my cousin.
I have to be at work by nine.
She put her whole weight on the lever.
The pavement was covered in ice.
They brought their own furniture.
The other half of the map is gone.
A woman called about the apartment.
The fish in the pond have come back.
He has been the same since the move.
My sister is going to be a pilot.
We heard the whole thing from the balcony.
The bananas are for the monkeys.
You never told me about the beach house.
I gave him the wrong number.
The show was over before we got there.
She was waiting at the bottom of the stairs.
There is room for one more.
The van would not move.
They put me in the front row.
The poem was about the river.
He found the watch beneath the floor.
We are going to need a bigger pot.
My cousin made the wedding cake.
The boy threw the ball over the house.
I have seen this place before.
The judge wants to hear from both of you.
You can keep the change.
She is always the first to leave.
The whole class voted for the zoo.
They sell maps and very good coffee.
The roof blew off in the storm.
He put the photograph in his pocket.
We have moved the party to Friday.
A thousand people came to the match.
My hands still smell of onions.
The new bridge will be open by spring.
I asked for the blue one.
The music came from below.
You should both be in bed by now.
She found five pounds in an old purse.
Their plane lands in twenty minutes.
The wheel came off on the way down.
He would rather live by the sea.
We have never had a winter like this.
The bird on the roof is a falcon.
I was just about to phone you.
They have put the prices up again.
The shadow moved across the floor.
My office is above the fish market.
It was the biggest wave I ever saw.
The envelope had my name on it.
You have to push the button twice.
She left a bag of peaches on the step.
The fox comes into the yard every evening.
He wants us to choose a name.
We saw the whole village from the balloon.
The museum lost one of its paintings.
I will be the one in the yellow hat.
They left before the music began.
The road was blocked by a fallen tree.
My best friend is moving to Paris.
A piece of the puzzle is missing.
The bees have made a home in the wall.
You put the milk in the cupboard.
He has five brothers and no sisters.
We will have to go by boat.
The machine gave me both of them.
I think I know this tune.
She read the whole book in a day.
The children have eaten all the cheese.
Where did you put my glasses?
Who told you about the letter?
Have you ever been to the island?
What time does the museum open?
Why is the front door open?
How many people did you invite?
Did you hear what she said?
Is this the way to the beach?
When will the package be here?
Would you move a bit to the left?
Are they coming back for the boat?
Do you want me to call him back?
Whose bag is in the hallway?
Could you pass me the butter?
What was in the other box?
Has anybody seen the blue folder?
Which of these maps is yours?
Why did he move the piano?
Do you remember the woman from the ferry?
How far is the village from here?
Is that your voice on the tape?
Who left the window open?
What are you going to do with the boat?
Where were you when the lights went out?
Did they tell you who bought the house?
Have we met somewhere before?
Can you see the tower from there?
What happened to the apple tree?
Will your mother be at the party?
How did you find this place?
When I got home, the door was open.
If you move the lamp, we can see better.
After the show, we went for a walk.
Before you go, have a look at this.
Once the rain stops, we can leave.
As far as I know, nobody lives there.
On the way back, we passed your house.
By the time we arrived, the food was gone.
In the morning, the boat was gone.
For the first time, I beat my father.
Without a map, we will never find it.
At the top of the hill, turn right.
Behind the house, there is a small pond.
To be fair, you did ask me first.
In the end, they chose the blue one.
Well, that was the last of the bread.
Oh, you brought the whole family.
No, the other room.
Yes, I know the place.
Maybe so, but it was my idea.
The man in the photo, by the way, is my uncle.
My brother, my mother and I share the flat.
She bought peas, beans, plums and a melon.
It was small, brown and very heavy.
They came, they ate, and they left.
He looked at me, then at the map, then at the road.
I wanted the front room, but they gave us the one above the pub.
We could go by bus, or we could wait for your brother.
The water was up to my waist, and it was still rising.
You take the big one, and I will carry the other two.
The woman who bought the farm used to be my piano teacher.
I put it in the box, and I put the box in the van.
There was a note on the door, but I did not read it.
He said he saw a white horse in the middle of the road.
They told me that you would be the one to open the box.
My mother says that the new people upstairs are from Bombay.
We have to be quiet, because the baby is asleep.
The first thing I saw was your picture on the wall.
I have never told anybody where we found the money.
She was with my cousin when the phone began to ring.
"""

SENTENCES = tuple(_TEXT.strip().splitlines())
